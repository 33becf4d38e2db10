"""HTTP API, live streams and the web page; reads Redis and Kafka through `worker.clients`."""
