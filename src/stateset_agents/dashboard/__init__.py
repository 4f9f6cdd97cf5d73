"""A page that shows run folders: are they running, do they learn, what is said in them.

Invariant: reading is all it does. Nothing in a run folder is written, locked or taken for granted: lines may be torn,
files may be missing, a run may be cut back and go on while it is looked at.

    plain_files.py    opening what lies in a run folder
    follow.py         the whole lines of a log that grows
    metrics.py        metrics.jsonl as columns of numbers
    conversations.py  where each conversation lies in trajectories.jsonl
    buckets.py        many points to as many as a screen has
    runs.py           which runs a folder holds, and how each stands
    answers.py        runs, verdict, health and conversations, as the page asks for them
    curves.py         numbers over a run
    lineage.py        config and checkpoints
    answer.py         an answer as JSON
    access.py         who may ask
    asked.py          what a request asks for
    questions.py      each question and its answer
    changes.py        telling open pages that a run changed
    server.py         the application
    page_files.py     the files of the page
    serving.py        where it listens, and how it ends
    export.py         the same page as a folder of files
"""
