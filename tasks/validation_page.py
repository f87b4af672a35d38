def write_page(path, result, tables, pixels):
    path.write_text("todo")
