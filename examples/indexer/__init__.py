"""A searchable index over the text files below a folder, built by a supervised pool of workers.

    aspen run examples.indexer:Indexer -- PATH

app             the application: settings and supervisors, where to begin reading
coordinator     hands out files, and takes them back from workers that die
worker          counts the words of one file at a time
index           the index itself, and queries
chaos           kills workers at random, on request
text            files to words, with no actor in it; the sequential reference
show            the terminal: progress, account, queries
"""

from examples.indexer.app import Indexer

__all__ = ["Indexer"]
