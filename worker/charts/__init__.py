"""Pictures for notebooks and papers: matplotlib without a display, labels in Korean or English."""
