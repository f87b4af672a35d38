"""What web pages share: their style, their charts and their pictures, all within the page."""
