"""Nodes among each other.

members           records of nodes, the messages about them, what membership asks of its edge
membership        who is there: probes, gossip, suspicion and refutation, sans-IO; its docstring is the theory of operation
membership_port   membership on the clock and the frames of a node
"""
