"""The backend of the portals: JSON for the single-page application, and the application itself."""
