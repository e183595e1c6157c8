"""Everything that workers share breaks, again and again, while many people read.

Three gateways behind nginx, with one Redis, one PostgreSQL and one model between them; every few
seconds a fault. What is looked at is what a reader would see, and what is left when all is quiet::

    questions   what is asked, and what the whole answer is
    reader      asks and reads as a good client does ──► records  what it got
    deployment  what runs          faults  what breaks, and when
    checks      one question: what its readers got is right (pure)
    aftermath   all of them, once nothing breaks any more: what is left where
    table       what happened

``python -m tests.chaos --help``; the seed makes the same questions and the same order of faults,
not the same race twice.
"""
