"""The figures of a report: each takes runs, says what they show in a sentence, and draws it."""
