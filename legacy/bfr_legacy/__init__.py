"""What connected systems speak today."""
