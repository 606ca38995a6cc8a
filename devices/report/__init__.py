"""Reports that people look at rather than read: one page out of results files, and the same charts as pictures."""
