"""Clinical knowledge of common diseases as data: values (`schema`), reading and checking (`loader`)."""
