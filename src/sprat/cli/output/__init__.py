"""What commands print: tables, progress bars, JSON, replies."""
