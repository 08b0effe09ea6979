"""Delivery: owns the spool; schedules, delivers, bounces, counts. The path of a message here: servicer → scheduler → attempt → settle."""
