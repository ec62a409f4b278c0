"""The functional core: events to interest, candidates, scores and a ranking.

Nothing here reads a clock, the environment, a topic or global randomness: time and seeds are arguments,
and "now" is the timestamp of the record being applied. Modules import only those before them on the path

    (arrays, units) → ids → runs → seal → features → text → events → order → rows → dedup → claims → answers → cleaning
        → anomaly → ring → interest → value → tones → shelf → catalogue → update → candidates → examination → rates
        → inputs → gathering → graph → files → manifest → attention → probes → proof → clicks → impressions → pending
        → evidence → watch → learner → feedback → pool → calibration → exploration → assignment → policies → models
        → auction → ranking → thompson → confidence → interleaving → variety → slate → columns → offers → market
        → fairness → shown → ledger → pacing → traffic → settlement → budgets → billing → touches → moments
        → attribution → engine → exposure

and beside it, the laboratory that judges what the engine did

    (offpolicy, sentiment, positions) → trial → allocation
"""
