"""From findings to what people read: tables, figures, pages."""
