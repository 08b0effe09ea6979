"""The command postroom: runs everything on one machine, and shows and steers a running Postroom."""
