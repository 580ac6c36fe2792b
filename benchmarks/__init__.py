"""What milepost costs, measured beside a reference. It is a package, so that no other `benchmarks` is found."""
