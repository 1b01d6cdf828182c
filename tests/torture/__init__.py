"""The store tortured in real processes: killed, stalled, with rotten disks; judged by what its clients were told.

seam            what a store must offer to be tortured: a cluster, its clients, two kinds of failure
rounds          clients under load, what is done to the members meanwhile, the history of it all
verify          the log read back from the store, and both checks of `aspen.sim.checks` over it
scenarios       rotten logs and pages, lost and foreign disks, full and failing ones, rolling restarts, failover
disk            a disk that fails on demand: a library loaded before the C library
etcd            etcd behind the seam: it shows that the harness is right
"""
