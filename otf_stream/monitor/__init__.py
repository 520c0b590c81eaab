"""What people see of a service, and ask of it: state, alarms, metrics, the throughput log and an HTTP interface."""
