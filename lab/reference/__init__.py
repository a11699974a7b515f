"""What the pack is compared with: plain loops of the papers, the demo model as a flow."""
