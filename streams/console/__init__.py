"""The live console: what the topics and the lag monitor say, on a page, independent of any worker.

`tails` reads topics; `flow`, `clicks`, `models`, `campaigns`, `refused` and `people` keep what matters of each, bounded
and without I/O; `alarms` says what is wrong; `desk` puts a snapshot together every second; `why` explains a placement;
`serve` is the web server, `static` the page.
"""
