"""Reports as web pages: plain data from the report's tables and figures, and one template, style and script."""
