"""One module a scenario: `measure(bench)` returns its rows; the functions it starts in processes of their own stand beside it."""
