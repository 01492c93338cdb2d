"""Reports for people to read: tables, figures, pages."""
