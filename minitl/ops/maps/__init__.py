"""What maps go through besides: sums, products, pools, resizing, dropout."""
