"""What each of AgentDojo's tools acts on.

One rule: the type of a resource stands here, an argument only ever fills its id. Lists cannot fill an id (a call has
one resource), so tools over lists of names act on their suite; what has no id at all is the user's `own`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

RESOURCES: Mapping[str, str] = {
    # banking
    "get_iban": "Suite::banking",
    "get_balance": "Suite::banking",
    "get_most_recent_transactions": "Suite::banking",
    "get_scheduled_transactions": "Suite::banking",
    "send_money": "Account::{recipient}",
    "schedule_transaction": "Account::{recipient}",
    "update_scheduled_transaction": "StandingOrder::{id}",
    "read_file": "Document::{file_path}",
    "get_user_info": "Profile::own",
    "update_user_info": "Profile::own",
    "update_password": "Profile::own",
    # slack
    "get_channels": "Suite::slack",
    "add_user_to_channel": "Channel::{channel}",
    "get_users_in_channel": "Channel::{channel}",
    "read_channel_messages": "Channel::{channel}",
    "send_channel_message": "Channel::{channel}",
    "read_inbox": "Member::{user}",
    "send_direct_message": "Member::{recipient}",
    "invite_user_to_slack": "Member::{user}",
    "remove_user_from_slack": "Member::{user}",
    "get_webpage": "Webpage::{url}",
    "post_webpage": "Webpage::{url}",
    # workspace and travel
    "send_email": "Mailbox::own",
    "create_calendar_event": "Calendar::own",
    "search_calendar_events": "Calendar::own",
    "get_day_calendar_events": "Calendar::own",
    "cancel_calendar_event": "Event::{event_id}",
    # workspace
    "get_unread_emails": "Mailbox::own",
    "get_sent_emails": "Mailbox::own",
    "get_received_emails": "Mailbox::own",
    "get_draft_emails": "Mailbox::own",
    "search_emails": "Mailbox::own",
    "delete_email": "Email::{email_id}",
    "search_contacts_by_name": "Mailbox::own",
    "search_contacts_by_email": "Mailbox::own",
    "get_current_day": "Calendar::own",
    "reschedule_calendar_event": "Event::{event_id}",
    "add_calendar_event_participants": "Event::{event_id}",
    "list_files": "Drive::own",
    "search_files": "Drive::own",
    "search_files_by_filename": "Drive::own",
    "create_file": "Drive::own",
    "get_file_by_id": "File::{file_id}",
    "append_to_file": "File::{file_id}",
    "delete_file": "File::{file_id}",
    "share_file": "File::{file_id}",
    # travel
    "get_user_information": "Profile::own",
    "get_all_hotels_in_city": "City::{city}",
    "get_all_restaurants_in_city": "City::{city}",
    "get_all_car_rental_companies_in_city": "City::{city}",
    "get_flight_information": "City::{arrival_city}",
    "get_hotels_address": "Hotel::{hotel_name}",
    "reserve_hotel": "Hotel::{hotel}",
    "reserve_restaurant": "Restaurant::{restaurant}",
    "reserve_car_rental": "CarRental::{company}",
    # These take lists of names: no single resource, so the suite.
    "get_hotels_prices": "Suite::travel",
    "get_rating_reviews_for_hotels": "Suite::travel",
    "get_cuisine_type_for_restaurants": "Suite::travel",
    "get_restaurants_address": "Suite::travel",
    "get_rating_reviews_for_restaurants": "Suite::travel",
    "get_dietary_restrictions_for_all_restaurants": "Suite::travel",
    "get_contact_information_for_restaurants": "Suite::travel",
    "get_price_for_restaurants": "Suite::travel",
    "check_restaurant_opening_hours": "Suite::travel",
    "get_car_types_available": "Suite::travel",
    "get_rating_reviews_for_car_rental": "Suite::travel",
    "get_car_fuel_options": "Suite::travel",
    "get_car_rental_address": "Suite::travel",
    "get_car_price_per_day": "Suite::travel",
}
"""The resource each tool acts on, as a template over its arguments; the type never comes from an argument."""
