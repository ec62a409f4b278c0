"""What a worker tells Prometheus, the tables made of it for people, and Grafana's dashboards."""
