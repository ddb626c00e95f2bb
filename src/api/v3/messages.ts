import { z } from 'zod'
import type { Message } from '../../services/model.ts'
import { Link } from '../fields.ts'
import { textFilter } from '../filters.ts'
import type { Links } from '../links.ts'
import { since } from '../microversion.ts'
import { emptyPage, listing, nextLinks, toListRequest } from '../paging.ts'
import { defineRoute, type Route } from '../route.ts'

export const MESSAGES = listing({
  filters: {
    resource_uuid: since('3.5', textFilter),
    resource_type: since('3.5', textFilter),
    event_id: since('3.5', textFilter),
    request_id: since('3.5', textFilter),
    message_level: since('3.5', textFilter),
  },
  sortKeys: ['id', 'event_id', 'message_level', 'request_id', 'resource_type', 'resource_uuid', 'created_at'],
  pagesSince: '3.5',
  counts: false,
})

const MessageView = z.object({
  id: z.string(),
  request_id: z.string().nullable(),
  resource_type: z.string(),
  resource_uuid: z.string().optional(),
  event_id: z.string(),
  message_level: z.string(),
  user_message: z.string(),
  created_at: z.string(),
  guaranteed_until: z.string(),
  links: z.array(Link),
})

export const messageRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/messages',
    operation: 'list_messages',
    summary: 'List why work failed that accepted requests had asked for',
    since: '3.3',
    policy: 'message:get_all',
    query: MESSAGES.query,
    response: z.object({ messages: z.array(MessageView), messages_links: z.array(Link).optional() }),
    handler: async ({ services, context, client, query, links }) => {
      const request = toListRequest(MESSAGES, query, client)
      const page = request.nothing ? emptyPage<Message>(request) : await services.messages.list(context, request.query)
      return {
        messages: page.items.map((message) => messageView(message, links)),
        messages_links: nextLinks(page, request, links, '/messages'),
      }
    },
  }),
  defineRoute({
    method: 'GET',
    url: '/messages/:message_id',
    operation: 'show_message',
    summary: 'Show a message',
    since: '3.3',
    policy: 'message:get',
    response: z.object({ message: MessageView }),
    handler: async ({ services, context, params, links }) => ({
      message: messageView(await services.messages.get(context, params.message_id), links),
    }),
  }),
  defineRoute({
    method: 'DELETE',
    url: '/messages/:message_id',
    operation: 'delete_message',
    summary: 'Delete a message',
    since: '3.3',
    policy: 'message:delete',
    status: 204,
    handler: ({ services, context, params }) => services.messages.delete(context, params.message_id),
  }),
]

function messageView(message: Message, links: Links): z.input<typeof MessageView> {
  const path = `/messages/${message.id}`
  return {
    id: message.id,
    request_id: message.requestId,
    resource_type: message.resourceType,
    ...(message.resourceId === null ? {} : { resource_uuid: message.resourceId }),
    event_id: message.eventId,
    message_level: message.level,
    user_message: message.text,
    created_at: message.createdAt,
    guaranteed_until: message.expiresAt,
    links: [
      { rel: 'self', href: links.self(path) },
      { rel: 'bookmark', href: links.bookmark(path) },
    ],
  }
}
