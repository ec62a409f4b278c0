"""What people did and what they were shown, as one page: ``salience report``.

Messages become columns (`gathered`), an action is joined with the impression that it answers (`joined`), and every
section is a pure function of that: `funnels`, `cohorts`, `attention`, `drift`, `personal`, `campaigns`, `fairness`.
`report` puts them together, `plots` and `page` show them. Nothing in a report is of one person: it holds sums over
people, and the names of ads' campaigns, advertisers and categories.
"""
