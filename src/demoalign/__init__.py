"""demoalign: align language models from demonstrations alone."""
