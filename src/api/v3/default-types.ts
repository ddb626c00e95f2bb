import { z } from 'zod'
import type { DefaultType } from '../../services/model.ts'
import { defineRoute, type Route } from '../route.ts'
import { typeName } from './types.ts'

const DefaultTypeView = z.object({ project_id: z.string(), volume_type_id: z.string() })

const DefaultTypeBody = z.object({
  default_type: z.strictObject({
    volume_type: typeName,
  }),
})

export const defaultTypeRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/default-types',
    operation: 'list_default_types',
    summary: 'List the projects that have a default volume type of their own',
    since: '3.62',
    policy: 'volume_extension:default_get_all',
    response: z.object({ default_types: z.array(DefaultTypeView) }),
    handler: async ({ services, context }) => ({
      default_types: (await services.defaultTypes.list(context)).map(defaultTypeView),
    }),
  }),
  defineRoute({
    method: 'GET',
    url: '/default-types/:id',
    operation: 'show_project_default_type',
    summary: 'Show the default volume type of a project',
    since: '3.62',
    policy: 'volume_extension:default_get',
    response: z.object({ default_type: DefaultTypeView }),
    handler: async ({ services, context, params }) => ({
      default_type: defaultTypeView(await services.defaultTypes.get(context, params.id)),
    }),
  }),
  defineRoute({
    method: 'PUT',
    url: '/default-types/:id',
    operation: 'set_project_default_type',
    summary: 'Set the default volume type of a project, by name or id',
    since: '3.62',
    policy: 'volume_extension:default_set_or_update',
    body: DefaultTypeBody,
    response: z.object({ default_type: DefaultTypeView }),
    handler: async ({ services, context, params, body }) => ({
      default_type: defaultTypeView(await services.defaultTypes.set(context, params.id, body.default_type.volume_type)),
    }),
  }),
  defineRoute({
    method: 'DELETE',
    url: '/default-types/:id',
    operation: 'unset_project_default_type',
    summary: 'Give a project the default volume type of all again',
    since: '3.62',
    policy: 'volume_extension:default_unset',
    status: 204,
    handler: ({ services, context, params }) => services.defaultTypes.unset(context, params.id),
  }),
]

function defaultTypeView({ projectId, volumeTypeId }: DefaultType): z.input<typeof DefaultTypeView> {
  return { project_id: projectId, volume_type_id: volumeTypeId }
}
