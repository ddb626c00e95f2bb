import { z } from 'zod'
import { text } from '../fields.ts'
import { defineRoute, type Route } from '../route.ts'

const ProjectBody = z.strictObject({ project: text(255).min(1) })

const Access = z.object({ volume_type_id: z.string(), project_id: z.string() })

export const typeAccessRoutes: Route[] = [
  defineRoute({
    method: 'GET',
    url: '/types/:volume_type_id/os-volume-type-access',
    operation: 'list_type_access',
    summary: 'List the projects that may use a private volume type',
    policy: 'volume_extension:volume_type_access:get_all_for_type',
    response: z.object({ volume_type_access: z.array(Access) }),
    handler: async ({ services, context, params: { volume_type_id } }) => {
      const projects = await services.types.listAccess(context, volume_type_id)
      return { volume_type_access: projects.map((project_id) => ({ volume_type_id, project_id })) }
    },
  }),
  defineRoute({
    method: 'POST',
    url: '/types/:volume_type_id/action',
    action: 'addProjectAccess',
    operation: 'add_type_access',
    summary: 'Let a project use a private volume type',
    policy: 'volume_extension:volume_type_access:addProjectAccess',
    body: ProjectBody,
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.types.addAccess(context, params.volume_type_id, body.project),
  }),
  defineRoute({
    method: 'POST',
    url: '/types/:volume_type_id/action',
    action: 'removeProjectAccess',
    operation: 'remove_type_access',
    summary: 'Let a project use a private volume type no longer',
    policy: 'volume_extension:volume_type_access:removeProjectAccess',
    body: ProjectBody,
    status: 202,
    handler: ({ services, context, params, body }) =>
      services.types.removeAccess(context, params.volume_type_id, body.project),
  }),
]
