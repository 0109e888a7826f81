"""The core: archives, patients, studies, access and time; it speaks no protocol."""
