"""The imperative shell: topics, lanes, publishing, the command line. What is decided is decided in `scoring`."""
