"""What several Postroom services share. Knows nothing of any one service; never speaks SMTP by itself."""
