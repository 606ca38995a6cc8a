"""The figures of a report: each has a question, a finding in a sentence, a chart and a data table."""
