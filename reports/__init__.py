"""Reports of a run: tables, figures and sounds as HTML, Markdown and in the terminal."""
