// Made by vite.config.ts from the model file.
declare module "virtual:model" {
  export const MODEL: { url: string; name: string; sha256: string; bytes: number };
}
