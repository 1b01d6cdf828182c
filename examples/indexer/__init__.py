"""A searchable index over the text files below a folder, built by workers that any node may lose at any time.

    aspen up --nodes 3 examples.indexer:Indexer -- PATH    # on three nodes
    aspen run examples.indexer:Indexer -- PATH             # on one

All that must not be lost is in the replicated store. What is in memory is made of it, by whoever needs it. So no node
is special, and any of them may be killed.

app             the application: settings and supervisors, where to begin reading
job             what is in the store: the job, how far it is, what has come of each file
coordinator     one of the cluster, elected: lists the files into a queue, and sees when all is done
worker          claims a few files at a time, counts their words, and writes them down if the claim still holds
index           the index in memory, made of what the store tells in a watch; queries
chaos           kills workers at random, and once the node that coordinates, on request
text            files to words, with no actor in it; the sequential reference
show            the terminal: progress, account, queries
"""

from examples.indexer.app import Indexer

__all__ = ["Indexer"]
