"""Pages for people who look after the server: plain HTML, no inline script, English and Spanish."""
