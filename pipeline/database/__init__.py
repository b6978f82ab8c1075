"""The study database: what the files of a study say, in one SQLite file that can be asked.

It is made from the files and can be made anew from them at any time; nothing else in the project reads it. What it has
beyond them is the history: every attempt of every job, and every call of Snakemake, as they were recorded live.
"""
