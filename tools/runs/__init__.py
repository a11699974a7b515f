"""Run workflows from the command line: overrides, tables, resume, one server or many."""
