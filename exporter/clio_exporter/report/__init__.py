"""The report card of a job or of any time range: PromQL's answers, made into a page."""
