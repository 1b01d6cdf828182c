"""Programs to judge the simulator by: right ones, and the same with one planted bug each, by the option `bug`."""
