"""What `aspen bench` measures. `actors` is the kernel; each later layer brings its own."""
