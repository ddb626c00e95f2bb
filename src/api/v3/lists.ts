import { z } from 'zod'
import type { ListQuery, Page } from '../../services/model.ts'
import { Link } from '../fields.ts'
import type { Links } from '../links.ts'
import { since } from '../microversion.ts'
import { emptyPage, type Listing, nextLinks, toListRequest } from '../paging.ts'
import type { ApiRequest } from '../route.ts'

/** What a list of `collection` answers: a page of it, the link to the next one, and how many there are for who asks. */
export function listResponse<Name extends string, Item extends z.ZodType>(collection: Name, item: Item) {
  const items: z.ZodArray<Item> = z.array(item)
  return z.object({
    [collection]: items,
    [`${collection}_links`]: z.array(Link).optional(),
    count: since('3.45', z.int().optional()),
  } as Record<Name, typeof items>)
}

/** Answers a list request with the page that `find` has, each of its items as `view` shows it. */
export async function answerList<Name extends string, Item extends { id: string }, View>(
  { client, query, links }: ApiRequest<unknown, Record<string, unknown>, unknown>,
  list: {
    collection: Name
    listing: Listing
    /** The path of the list, below the project. */
    path: string
    find(query: ListQuery, options: { count: boolean }): Promise<Page<Item>>
    view(item: Item, links: Links): View
  },
): Promise<Record<Name, View[]>> {
  const { collection, listing, path, find, view } = list
  const request = toListRequest(listing, query, client)
  const page = request.nothing ? emptyPage<Item>(request) : await find(request.query, { count: request.count })
  return {
    [collection]: page.items.map((item) => view(item, links)),
    [`${collection}_links`]: nextLinks(page, request, links, path),
    count: page.total,
  } as Record<Name, View[]>
}
