"""How colorize draws one mask: in colours, beside the truth, or back from colours to indices."""
