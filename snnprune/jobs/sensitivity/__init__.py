"""`snnprune sensitivity`: what each layer alone costs at each sparsity."""
