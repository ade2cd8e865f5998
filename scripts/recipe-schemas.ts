/** Writes recipes/*.schema.json from the recipes' types: `node scripts/recipe-schemas.ts`. */

import { writeFile } from 'node:fs/promises';
import { autoencoderRecipeSchema, publishedSchema, transformerRecipeSchema } from '../src/training/recipe.ts';

const schemas = { autoencoder: autoencoderRecipeSchema, transformer: transformerRecipeSchema };
for (const [name, schema] of Object.entries(schemas)) {
  const path = new URL(`../recipes/${name}.schema.json`, import.meta.url);
  await writeFile(path, `${JSON.stringify(publishedSchema(schema), null, 2)}\n`);
}
