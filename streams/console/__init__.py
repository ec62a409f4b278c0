"""The live console: a page of what the topics and the lag monitor say, independent of any worker.

`tails` reads topics. `flow`, `clicks`, `campaigns`, `refused`, `people` and `trials` keep what matters of each, bounded
and without I/O. `alarms` says what is wrong; `desk` makes a snapshot every second; `why` explains a placement; `serve`
is the web server, `static` the page.
"""
