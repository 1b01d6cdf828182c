"""A searchable index over the text files below a folder, built by a supervised pool of workers.

    aspen run examples.indexer:Indexer -- PATH             # on one node
    aspen up --nodes 3 examples.indexer:Indexer -- PATH    # on three

app             the application: settings and supervisors, where to begin reading
coordinator     hands out files, and takes them back from workers that die
worker          counts the words of one file at a time
crews           counts the workers of each node
index           the index itself, and queries
chaos           kills workers at random, and once a node, on request
text            files to words, with no actor in it; the sequential reference
show            the terminal: progress, account, queries
"""

from examples.indexer.app import Indexer

__all__ = ["Indexer"]
