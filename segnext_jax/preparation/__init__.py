"""From official downloads to prepared data sets; what the scripts of data/ use."""
